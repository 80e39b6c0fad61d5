"""How annotations are checked: an int will do for a float, as type checkers have it."""

from beartype import BeartypeConf, beartype

tower = beartype(conf=BeartypeConf(is_pep484_tower=True))
