"""The rest of end_to_end/test_reference_figures.py: other methods, and 2 bits."""
from test_reference_figures import ReferenceFigures
import helpers


class MoreFigures(ReferenceFigures):
    def test_rtn_at_3_bits(self):
        self.check(3, "rtn", 39.646, 0.03)

    def test_snrq_at_3_bits(self):
        self.check(3, "snrq", 11.009, 0.03 + 0.150 / 11.009)

    def test_snrq_at_2_bits(self):
        self.check(2, "snrq", 48.241, 0.10 + 2.300 / 48.241)


if __name__ == "__main__":
    helpers.main()
