# cmake -D BUILD=FOLDER -D SOURCE=FOLDER -D WORK=FOLDER -D VERSION=V -D COMPILER=CC -D FLAGS=... -D LIBDIR=lib
#       -D NM=nm -P install.cmake
#
# Installs the build into an empty prefix, finds everything there, compares what the shared library exports with what the
# headers declare, and builds and runs a program against it with what pkg-config says, with the shared library and with the
# static one.

cmake_minimum_required(VERSION 3.22)

set(ENV{PKG_CONFIG_PATH} ${WORK}/prefix/${LIBDIR}/pkgconfig)

# result = stdout; anything but success ends the test.
function(run result)
    execute_process(COMMAND ${ARGN} WORKING_DIRECTORY ${WORK} RESULT_VARIABLE status OUTPUT_VARIABLE out ERROR_VARIABLE err
        OUTPUT_STRIP_TRAILING_WHITESPACE)
    if(NOT status EQUAL 0)
        list(JOIN ARGN " " command)
        message(FATAL_ERROR "${command}\nstatus ${status}\n${out}\n${err}")
    endif()
    set(${result} "${out}" PARENT_SCOPE)
endfunction()

function(expect_equal what actual expected)
    if(NOT actual STREQUAL expected)
        message(FATAL_ERROR "${what}: '${actual}', expected '${expected}'")
    endif()
endfunction()

# result = the names mq_... in what the pattern matches of the text, each once.
function(names_of result text pattern)
    string(REGEX MATCHALL "${pattern}" matches "${text}")
    string(REGEX MATCHALL "mq_[A-Za-z0-9_]+" names "${matches}")
    list(REMOVE_DUPLICATES names)
    set(${result} "${names}" PARENT_SCOPE)
endfunction()

file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK})
run(ignored ${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/prefix)

run(out ${WORK}/prefix/bin/matquant --version)
if(NOT out MATCHES "^matquant ${VERSION}")
    message(FATAL_ERROR "the installed program says '${out}'")
endif()
foreach(file IN ITEMS share/man/man1/matquant.1 ${LIBDIR}/libmatquant.a ${LIBDIR}/libmatquant.so)
    if(NOT EXISTS ${WORK}/prefix/${file})
        message(FATAL_ERROR "not installed: ${file}")
    endif()
endforeach()
file(GLOB installed RELATIVE ${WORK}/prefix/include ${WORK}/prefix/include/matquant/*.h)
file(GLOB public RELATIVE ${SOURCE}/include ${SOURCE}/include/matquant/*.h)
expect_equal("installed headers" "${installed}" "${public}")
file(STRINGS ${SOURCE}/tests/structure/install.c included REGEX "^#include <matquant/")
list(TRANSFORM included REPLACE "#include <(.*)>" "\\1")
expect_equal("headers that install.c includes" "${included}" "${installed}")

run(version pkg-config --modversion matquant)
expect_equal("pkg-config --modversion" "${version}" "${VERSION}")
run(cflags pkg-config --cflags matquant)
run(libs pkg-config --libs matquant)
# For the static library: what Requires.private and Libs.private name. (Not pkg-config --static, which also wants all
# that the static OpenBLAS would.)
run(static_libs pkg-config --libs libcjson openblas zlib libpcre2-8 libutf8proc libmd)
file(STRINGS ${WORK}/prefix/${LIBDIR}/pkgconfig/matquant.pc private_libs REGEX "^Libs.private:")
string(REGEX REPLACE "^Libs.private: *" "" private_libs "${private_libs}")
separate_arguments(cflags)
separate_arguments(libs)
separate_arguments(static_libs)
separate_arguments(private_libs)
separate_arguments(FLAGS)

# The functions are found in what the compiler's preprocessor leaves of the headers, however they are written there (not as
# cmake/export-map.cmake finds them): a name before a parenthesis that is no pointer's, unless it is defined inline.
list(TRANSFORM installed REPLACE "(.+)" "#include <\\1>\n" OUTPUT_VARIABLE headers)
file(WRITE ${WORK}/headers.c ${headers})
run(declarations ${COMPILER} -std=c17 -E -P ${cflags} ${WORK}/headers.c)
names_of(functions "${declarations}" "mq_[A-Za-z0-9_]+[ \t\n]*\\([^*]")
names_of(inline "${declarations}" "inline[^;{}()]*[ \t\n*]mq_[A-Za-z0-9_]+[ \t\n]*\\(")
list(REMOVE_ITEM functions ${inline})
run(symbols ${NM} --dynamic --defined-only --format=posix ${WORK}/prefix/${LIBDIR}/libmatquant.so)
string(REGEX REPLACE " [^\n]*" "" symbols "${symbols}")
string(REPLACE "\n" ";" symbols "${symbols}")
set(unexported ${functions})
list(REMOVE_ITEM unexported ${symbols})
expect_equal("functions that libmatquant.so does not export" "${unexported}" "")
list(REMOVE_ITEM symbols ${functions})
expect_equal("symbols of libmatquant.so that no header declares" "${symbols}" "")

set(ENV{LD_LIBRARY_PATH} ${WORK}/prefix/${LIBDIR})
run(ignored ${COMPILER} -std=c17 -Wall -Wextra -Werror ${FLAGS} ${cflags} ${SOURCE}/tests/structure/install.c
    -o ${WORK}/shared ${libs})
run(out ${WORK}/shared)
expect_equal("program with the shared library" "${out}" "${VERSION}")

run(ignored ${COMPILER} -std=c17 -Wall -Wextra -Werror ${FLAGS} ${cflags} ${SOURCE}/tests/structure/install.c
    -o ${WORK}/static ${WORK}/prefix/${LIBDIR}/libmatquant.a ${static_libs} ${private_libs})
run(out ${WORK}/static)
expect_equal("program with the static library" "${out}" "${VERSION}")
if(EXISTS ${WORK}/output)
    message(FATAL_ERROR "the output of a verb that refused its input is there")
endif()
file(REMOVE_RECURSE ${WORK})
