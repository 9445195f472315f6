"""What is wrong with a row of a foreign table."""


class BadRow(ValueError):
    """A row that is no pair; `rule` names what it breaks, for counting.

    tells_of_all   what is wrong here is probably wrong in every row, also where it does not
                   show: such a row is never left out in silence
    """

    def __init__(self, rule: str, text: str, *, tells_of_all: bool = False):
        super().__init__(text)
        self.rule, self.tells_of_all = rule, tells_of_all
