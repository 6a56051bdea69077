# What `cpack` makes of a build: two Debian packages, snrq (the program) and libsnrq-dev (the static library with its
# headers), or with `cpack --config CPackSourceConfig.cmake` an archive of the source. docs/packaging/README.md says how.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME snrq)
set(CPACK_PACKAGE_VENDOR "The snrq authors")
set(CPACK_PACKAGE_CONTACT "The snrq authors <snrq@example.org>") # -DCPACK_PACKAGE_CONTACT=... names who answers for it
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_PACKAGE_DIRECTORY ${PROJECT_BINARY_DIR}/packages)
set(CPACK_STRIP_FILES ON)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE
    WORLD_READ WORLD_EXECUTE)
set(CPACK_COMPONENTS_ALL program development)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)
# What Debian wants in /usr/share/doc, and compressed manual pages.
set(CPACK_PRE_BUILD_SCRIPTS ${PROJECT_SOURCE_DIR}/docs/packaging/debian/finish.cmake)
set(CPACK_SNRQ_DEBIAN_FILES ${PROJECT_SOURCE_DIR}/docs/packaging/debian)
set(CPACK_SNRQ_CHANGES ${PROJECT_SOURCE_DIR}/CHANGELOG.md)
set(CPACK_SNRQ_STRIP ${CMAKE_STRIP})

# Libraries and their versions come from the programs themselves (dpkg-shlibdeps). mpirun is no library. The reference
# BLAS would do for them, but it is many times slower, and its LAPACK gives other last bits.
set(CPACK_DEBIAN_PROGRAM_PACKAGE_NAME snrq)
set(CPACK_DEBIAN_PROGRAM_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PROGRAM_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PROGRAM_PACKAGE_DEPENDS "openmpi-bin, libopenblas0-pthread | libopenblas0")
set(CPACK_DEBIAN_PROGRAM_PACKAGE_RECOMMENDS "gnuplot-nox | gnuplot")
set(CPACK_DEBIAN_PROGRAM_PACKAGE_SUGGESTS slurm-client)
set(CPACK_DEBIAN_PROGRAM_DESCRIPTION
"snrq stores the weights of the linear layers of a language model in 2 to 8
bits, by regularized calibration with successive rounding. It runs under MPI
on any number of ranks and writes the same bytes on any number. A run that was
stopped or killed is resumed. Results are exported for inference engines:
GPTQ, compressed-tensors, GGUF and safetensors.")

set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libsnrq-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS
    "libopenmpi-dev, libhdf5-openmpi-dev, libscalapack-openmpi-dev, libblas-dev, liblapack-dev, libjansson-dev, \
libxxhash-dev, libpcre2-dev, libutf8proc-dev, zlib1g-dev")
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SUGGESTS "snrq, cmake, pkg-config")
set(CPACK_DEBIAN_DEVELOPMENT_DESCRIPTION
"snrq stores the weights of the linear layers of a language model in 2 to 8
bits. This package has its static library, the headers, and files for CMake
and pkg-config.")

set(CPACK_SOURCE_GENERATOR TGZ)
set(CPACK_SOURCE_PACKAGE_FILE_NAME snrq-${PROJECT_VERSION})
set(CPACK_SOURCE_IGNORE_FILES "/\\\\.git/" "/\\\\.git$" "/build[^/]*/" "/OUT" "__pycache__" "\\\\.tmp$")
include(CPack)
