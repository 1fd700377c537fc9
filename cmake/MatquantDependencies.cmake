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

# Optional: oneDNN's products of bfloat16. Its C interface changed with version 3; ours is written for 2. The library is
# looked for by hand, since its own CMake package wants the development files of OpenCL.
find_path(ONEDNN_INCLUDE_DIR oneapi/dnnl/dnnl.h)
find_library(ONEDNN_LIBRARY dnnl)
mark_as_advanced(ONEDNN_INCLUDE_DIR ONEDNN_LIBRARY)
set(onednn_version "")
if(ONEDNN_INCLUDE_DIR AND ONEDNN_LIBRARY)
    file(STRINGS ${ONEDNN_INCLUDE_DIR}/oneapi/dnnl/dnnl_version.h onednn_lines REGEX "define DNNL_VERSION_(MAJOR|MINOR) ")
    string(REGEX MATCHALL "[0-9]+" onednn_version "${onednn_lines}")
    list(JOIN onednn_version . onednn_version)
    file(STRINGS ${ONEDNN_INCLUDE_DIR}/oneapi/dnnl/dnnl_config.h onednn_openmp
        REGEX "define DNNL_CPU_THREADING_RUNTIME DNNL_RUNTIME_OMP")
endif()
if(onednn_version MATCHES "^2\\." AND onednn_openmp)
    set(onednn_found ON)
else()
    set(onednn_found OFF)
endif()
option(MATQUANT_ONEDNN "Products of bfloat16 with oneDNN 2 (found: ${onednn_found})" ${onednn_found})
if(MATQUANT_ONEDNN)
    if(NOT onednn_found)
        message(FATAL_ERROR "MATQUANT_ONEDNN: oneDNN 2 with OpenMP is not there (version '${onednn_version}')")
    endif()
    target_include_directories(matquant_dependencies SYSTEM INTERFACE ${ONEDNN_INCLUDE_DIR})
    target_compile_definitions(matquant_dependencies INTERFACE MATQUANT_ONEDNN)
    target_link_libraries(matquant_dependencies INTERFACE ${ONEDNN_LIBRARY})
    set(matquant_private_libs "-ldnnl ") # for matquant.pc: oneDNN has no pkg-config file
endif()
