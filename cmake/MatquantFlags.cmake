# How everything of ours is compiled.

option(MATQUANT_WERROR "Warnings are errors (on in CI)" OFF)
option(MATQUANT_SANITIZE "Build with the address and undefined behaviour sanitizers" OFF)
option(MATQUANT_COVERAGE "Build with coverage counters (gcov)" OFF)
option(MATQUANT_FUZZ "Build tests/fuzz for libFuzzer (clang; see tests/fuzz/fuzz.sh)" OFF)

set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

# assert() stays in every build: it guards what only a bug of ours can break, and costs nothing that shows.
set(CMAKE_C_FLAGS_RELEASE "-O3")
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O2 -g")
set(CMAKE_C_FLAGS_DEBUG "-O2 -g")

add_library(matquant_flags INTERFACE)
target_compile_definitions(matquant_flags INTERFACE _GNU_SOURCE)
target_compile_options(matquant_flags INTERFACE
    -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes
    # A product and a sum are rounded twice, on every compiler and with every instruction set: fusing them where
    # the compiler likes would make the bytes of a checkpoint depend on it. Kernels fuse by name (fmaf, intrinsics).
    -ffp-contract=off
    # sqrtf in a loop becomes one instruction; nothing here reads errno after a function of math.h.
    -fno-math-errno
    # Comparisons in a loop become masks: nothing here reads the floating-point exception flags.
    -fno-trapping-math)
if(MATQUANT_WERROR)
    target_compile_options(matquant_flags INTERFACE -Werror)
endif()
if(MATQUANT_SANITIZE)
    set(sanitize -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_compile_options(matquant_flags INTERFACE ${sanitize})
    target_link_options(matquant_flags INTERFACE ${sanitize})
endif()
if(MATQUANT_COVERAGE)
    target_compile_options(matquant_flags INTERFACE --coverage -fprofile-update=atomic)
    target_link_options(matquant_flags INTERFACE --coverage)
endif()
if(MATQUANT_FUZZ)
    target_compile_options(matquant_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# A file whose name ends in an instruction set is compiled for it; whoever calls it has asked the processor first.
# On other architectures such files are left out.
function(matquant_simd_sources sources_variable)
    set(avx2 -mavx2 -mfma -mf16c)
    set(avx512 ${avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl)
    set(kept ${${sources_variable}})
    foreach(source IN LISTS kept)
        if(source MATCHES "_(avx2|avx512)\\.c$")
            set(flags ${${CMAKE_MATCH_1}})
            if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
                set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${flags}")
            else()
                list(REMOVE_ITEM kept ${source})
            endif()
        endif()
    endforeach()
    set(${sources_variable} ${kept} PARENT_SCOPE)
endfunction()
