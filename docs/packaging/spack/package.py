# A recipe for Spack 1.0 and later. Put it into a repository of your own:
#
#   spack repo create ~/my-repo && mkdir -p ~/my-repo/spack_repo/my_repo/packages/snrq
#   cp package.py ~/my-repo/spack_repo/my_repo/packages/snrq/ && spack repo add ~/my-repo/spack_repo/my_repo
#   spack install snrq ^openmpi          the archive lies in the current folder: cpack makes it of the source
#   spack dev-build snrq@0.2.0           or of a source tree that is there
#   spack test run snrq
#
# Spack 0.23 and earlier have CMakePackage in spack.package: leave the first import out.
import os

from spack_repo.builtin.build_systems.cmake import CMakePackage

from spack.package import *


class Snrq(CMakePackage):
    """Quantizes large language models after training, to 2 to 8 bits, by regularized calibration with successive
    rounding. Runs under MPI, writes the same bytes on any number of ranks, and resumes after a kill."""

    # Nothing is fetched: the archive is the one of `cpack --config CPackSourceConfig.cmake`.
    manual_download = True
    url = "file://{0}/snrq-0.2.0.tar.gz".format(os.getcwd())

    license("BSD-3-Clause")

    # The checksum of a release belongs here: version("0.2.0", sha256="..."). Until then: spack install --no-checksum.
    version("0.2.0")

    variant("pictures", default=True, description="gnuplot for the pictures of reports")

    depends_on("c", type="build")
    depends_on("cmake@3.25:", type="build")
    depends_on("ninja", type="build")
    depends_on("pkgconfig", type="build")

    depends_on("mpi@3:")
    depends_on("blas")
    depends_on("lapack")
    depends_on("scalapack")
    depends_on("hdf5@1.10:+mpi")
    depends_on("jansson")
    depends_on("xxhash@0.8:")
    depends_on("pcre2@10.30:")
    depends_on("utf8proc")
    depends_on("zlib-api")
    depends_on("gnuplot", type="run", when="+pictures")

    # Tests of the build (spack install --test=root).
    depends_on("cunit", type="test")
    depends_on("python@3.9:", type="test")
    depends_on("py-numpy", type="test")
    depends_on("py-h5py+mpi", type="test")

    generator("ninja")

    def cmake_args(self):
        spec = self.spec
        libraries = spec["scalapack"].libs
        return [
            # Spack's compiler wrapper says for which CPU. With target=x86_64 the program chooses when it starts.
            self.define("SNRQ_NATIVE", False),
            self.define("SNRQ_TESTS", self.run_tests),
            self.define("MPI_C_COMPILER", spec["mpi"].mpicc),
            self.define("HDF5_ROOT", spec["hdf5"].prefix),
            self.define("SCALAPACK_LIBRARY", ";".join(libraries)),
            self.define("BLAS_LIBRARIES", ";".join(spec["blas"].libs)),
            self.define("LAPACK_LIBRARIES", ";".join(spec["lapack"].libs)),
        ]

    def check(self):
        with working_dir(self.build_directory):
            ctest("-L", "unit|ranks", "--output-on-failure")

    @run_after("install")
    def copy_test_data(self):
        cache_extra_test_sources(self, join_path("tests", "data"))

    def test_quantize_and_verify(self):
        """The bundled model on two ranks, and every byte of what it wrote."""
        data = join_path(self.test_suite.current_test_cache_dir, "tests", "data")
        launch = which(self.spec["mpi"].prefix.bin.mpirun)
        launch("-n", "2", self.prefix.bin.snrq, "quantize", join_path(data, "model"), "--calibration",
               join_path(data, "calibration.txt"), "-o", "OUT", "--bits", "3", "--group-size", "64", "--sequences", "8",
               "--length", "128")
        snrq = which(self.prefix.bin.snrq)
        assert "0 bad, complete" in snrq("verify", "OUT", output=str.split, error=str.split)
