#!/bin/bash
# Installs what the build of Caffe needs from Debian's packages, if it is missing and we may.
# usage: install_build_deps.sh FOLDER_OF_PYTHON_HEADERS
set -euo pipefail
source "$(dirname "$0")/../debian.sh"

need /usr/bin/cmake cmake "cmake configures the build"
need /usr/bin/make make "make runs it"
need /usr/bin/g++ g++ "g++ compiles it"
need "$1/Python.h" python3-dev "Python's headers describe the interface"
need /usr/bin/protoc protobuf-compiler "protoc writes Caffe's messages"
need /usr/include/google/protobuf/message.h libprotobuf-dev "Protobuf holds networks and weights"
need /usr/include/boost/version.hpp libboost-dev "Boost is used throughout"
need '/usr/lib/*/libboost_thread.so' libboost-thread-dev "Boost.Thread is used throughout"
need '/usr/lib/*/libboost_system.so' libboost-system-dev "Boost.System is used throughout"
need '/usr/lib/*/libboost_filesystem.so' libboost-filesystem-dev "Boost.Filesystem finds files"
need '/usr/lib/*/libboost_regex.so' libboost-regex-dev "Boost.Regex is linked"
need '/usr/lib/*/libboost_python3*.so' libboost-python-dev "Boost.Python makes the interface"
need /usr/include/gflags/gflags.h libgflags-dev "gflags holds glog's options"
need /usr/include/glog/logging.h libgoogle-glog-dev "glog writes Caffe's log"
need /usr/include/gtest/gtest.h libgtest-dev "a header of Caffe names GoogleTest"
need /usr/include/hdf5/serial/hdf5.h libhdf5-dev "HDF5 is read by two of Caffe's layers"
need '/usr/lib/*/libopenblas.so' libopenblas-dev "OpenBLAS multiplies the matrices"
[ "${#packages[@]}" -eq 0 ] && exit

if ! may_install; then
    say_what_is_missing
    exit 1
fi
echo "Installing for the build of Caffe: ${packages[*]}"
install_packages
