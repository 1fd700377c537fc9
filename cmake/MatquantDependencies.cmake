# The libraries matquant stands on; scripts/setup.sh installs them on Debian and Ubuntu.

find_package(PkgConfig REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS C)
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
foreach(module openblas libcjson zlib libpcre2-8 libutf8proc libmd)
    pkg_check_modules(${module} REQUIRED IMPORTED_TARGET ${module})
    list(APPEND matquant_pkgconfig_targets PkgConfig::${module})
endforeach()

add_library(matquant_dependencies INTERFACE)
target_link_libraries(matquant_dependencies INTERFACE
    ${matquant_pkgconfig_targets} OpenMP::OpenMP_C Threads::Threads m)
