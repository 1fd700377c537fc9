# Programs that are linked with a part of the layers: tests/unit/test_*.c and tests/fuzz/fuzz_*.c (one CTest test each), and those
# of tests/bench and tests/tools, which are built with everything so that they stay alive, and run by hand.
#
# The first line of the file says the highest layer it needs, /* layer: tensor */: it is linked with that layer and
# those below it only, so that a lower layer can be tested while an upper one does not compile. `layer: cli` links
# src/cli (without main.c) and the library, and sees the public headers only.

pkg_check_modules(cmocka REQUIRED IMPORTED_TARGET cmocka)

# Threads that wait sleep: tests run side by side. A leak is an error in the sanitizer build.
set(matquant_test_environment OMP_WAIT_POLICY=passive)
set(matquant_short_model ${CMAKE_CURRENT_BINARY_DIR}/tests/short-model)

# Tests start Python hundreds of times. Where python3 is a script that looks for the interpreter (pyenv's), which takes
# longer than what is asked of it, they find that interpreter itself first in PATH; with nothing but the standard library.
set(matquant_python_folder ${CMAKE_CURRENT_BINARY_DIR}/tests/bin)
set(matquant_test_changes PATH=path_list_prepend:${matquant_python_folder})
file(REMOVE ${matquant_python_folder}/python3)
execute_process(COMMAND python3 -c "import os, sys; print(os.path.realpath(sys.executable))"
    OUTPUT_VARIABLE matquant_python OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed EQUAL 0)
    execute_process(COMMAND ${matquant_python} -S -B -c "import json, struct, gzip, unittest, fcntl"
        OUTPUT_QUIET ERROR_QUIET RESULT_VARIABLE failed)
endif()
if(failed EQUAL 0)
    # An interpreter that has gone since is no failure: then it is what PATH has behind this folder.
    file(WRITE ${matquant_python_folder}/python3 "#!/bin/sh
[ -x '${matquant_python}' ] && exec '${matquant_python}' -S -B \"$@\"
PATH=\${PATH#*${matquant_python_folder}:}
exec python3 \"$@\"
")
    file(CHMOD ${matquant_python_folder}/python3
        PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
endif()

# A sanitizer's error is no status that a test of the command line waits for, 1 among them. What else is set there counts, too.
if(MATQUANT_SANITIZE)
    list(APPEND matquant_test_changes
        ASAN_OPTIONS=path_list_append:exitcode=99 UBSAN_OPTIONS=path_list_append:exitcode=99)
endif()

# Unit tests that take longest, and about how many seconds: a checkout that has run none yet starts them first. Where
# CTest has measured them itself it is to go by that.
set(matquant_unit_costs "")
if(NOT EXISTS ${CMAKE_CURRENT_BINARY_DIR}/Testing/Temporary/CTestCostData.txt)
    set(matquant_unit_costs "test_job_state 9" "test_job_quantize 8" "test_text_golden 5"
        "test_export_faults 4")
endif()

# gcc 12 for ARM ends with an internal error where it takes a loop of fmax over floats that become doubles side by side,
# at -O3. Tests look for the largest difference like that; nothing in src/ does.
set(matquant_unit_options "")
if(CMAKE_C_COMPILER_ID STREQUAL "GNU" AND CMAKE_C_COMPILER_VERSION MATCHES "^12\\."
   AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
    set(matquant_unit_options -fno-tree-loop-vectorize)
endif()

function(matquant_test_layer result source)
    file(STRINGS ${source} first LIMIT_COUNT 1)
    if(first MATCHES "^/\\* layer: ([a-z]+) \\*/")
        set(layer ${CMAKE_MATCH_1})
        if(layer STREQUAL cli OR layer IN_LIST MQ_LIBRARY_LAYERS)
            set(${result} ${layer} PARENT_SCOPE)
            return()
        endif()
    endif()
    set(severity WARNING)
    if(MATQUANT_WERROR)
        set(severity FATAL_ERROR)
    endif()
    message(${severity} "${source}: its first line should be /* layer: NAME */; left out")
    set(${result} "" PARENT_SCOPE)
endfunction()

# The object files of those of these layers that there are; after EMULATED, with tests/unit/emulated_bf16.c in place of
# oneDNN's products.
function(matquant_layer_objects result)
    set(objects "")
    foreach(layer IN LISTS ARGN)
        if(TARGET mq_${layer})
            list(APPEND objects $<TARGET_OBJECTS:mq_${layer}>)
        endif()
    endforeach()
    if("EMULATED" IN_LIST ARGN)
        set(objects $<FILTER:${objects},EXCLUDE,/gemm_bf16\\.c> tests/unit/emulated_bf16.c)
    endif()
    set(${result} ${objects} PARENT_SCOPE)
endfunction()

# The program `name`, or no target when what it needs is not there. EMULATED: its products of bfloat16 are those of
# tests/unit/emulated_bf16.c.
function(matquant_layer_program name source)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${source})
    matquant_test_layer(layer ${source})
    if(NOT layer OR (layer STREQUAL cli AND NOT (TARGET mq_cli AND TARGET matquant_static)))
        return()
    endif()
    add_executable(${name} ${source})
    if(layer STREQUAL cli)
        target_sources(${name} PRIVATE $<TARGET_OBJECTS:mq_cli>)
        target_include_directories(${name} PRIVATE include src/cli)
        target_link_libraries(${name} PRIVATE matquant_static)
    else()
        matquant_layer_objects(objects ${ARGN} ${MQ_BELOW_${layer}} ${layer})
        target_sources(${name} PRIVATE ${objects})
        target_include_directories(${name} PRIVATE src include)
    endif()
    target_link_libraries(${name} PRIVATE matquant_flags matquant_dependencies)
endfunction()

function(matquant_unit_test name source)
    matquant_layer_program(${name} ${source} ${ARGN})
    if(TARGET ${name})
        target_link_libraries(${name} PRIVATE PkgConfig::cmocka)
        target_compile_options(${name} PRIVATE ${matquant_unit_options})
        # The sanitizers watch what is done, whatever comes out: tests of a mean over many runs are skipped.
        target_compile_definitions(${name} PRIVATE
            MATQUANT_SANITIZED=$<BOOL:${MATQUANT_SANITIZE}>
            MATQUANT_GOLDEN_DIR="${CMAKE_CURRENT_SOURCE_DIR}/tests/golden"
            MATQUANT_DATA_DIR="${CMAKE_CURRENT_SOURCE_DIR}/data"
            MATQUANT_SHORT_MODEL="${matquant_short_model}"
            MATQUANT_SOURCE_DIR="${CMAKE_CURRENT_SOURCE_DIR}")
        add_test(NAME unit.${name} COMMAND ${name})
        set_tests_properties(unit.${name} PROPERTIES TIMEOUT 600 LABELS unit
            ENVIRONMENT "${matquant_test_environment}" ENVIRONMENT_MODIFICATION "${matquant_test_changes}")
        set(costs ${matquant_unit_costs})
        list(FILTER costs INCLUDE REGEX "^${name} ")
        if(costs MATCHES " ([0-9]+)$")
            set_tests_properties(unit.${name} PROPERTIES COST ${CMAKE_MATCH_1})
        endif()
    endif()
endfunction()

file(GLOB unit_tests CONFIGURE_DEPENDS tests/unit/test_*.c)
foreach(source IN LISTS unit_tests)
    get_filename_component(name ${source} NAME_WE)
    matquant_unit_test(${name} ${source})
endforeach()
# Tests that count calls from one source file to another.
target_link_options(test_base_file PRIVATE LINKER:--wrap=mq_sys_begin_sync)
if(TARGET test_job_ahead)
    target_link_options(test_job_ahead PRIVATE LINKER:--wrap=mq_tensor_will_need LINKER:--wrap=mq_learner_load)
endif()
# What is made of products of bfloat16, on machines without such instructions, too.
foreach(name IN ITEMS test_tensor_panels test_model_attention_bf16 test_model_block_bf16 test_model_head_gradient
        test_model_generate test_quant_learn test_quant_refit test_quant_refit_bf16 test_job_bf16)
    string(REPLACE test_ test_emulated_ emulated ${name})
    matquant_unit_test(${emulated} tests/unit/${name}.c EMULATED)
endforeach()

# Not built unless it is asked for: the program with such products, to see what rounding costs where no processor has them.
if(TARGET matquant)
    matquant_layer_objects(objects EMULATED ${MQ_LIBRARY_LAYERS})
    add_executable(matquant_emulated_bf16 EXCLUDE_FROM_ALL src/cli/main.c $<TARGET_OBJECTS:mq_cli> ${objects})
    target_include_directories(matquant_emulated_bf16 PRIVATE src include src/cli)
    target_link_libraries(matquant_emulated_bf16 PRIVATE matquant_flags matquant_dependencies)
endif()

foreach(folder IN ITEMS bench tools)
    file(GLOB programs CONFIGURE_DEPENDS tests/${folder}/*.c)
    foreach(source IN LISTS programs)
        get_filename_component(name ${source} NAME_WE)
        matquant_layer_program(${name} ${source})
        if(TARGET ${name})
            set_target_properties(${name} PROPERTIES
                RUNTIME_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/tests/${folder})
        endif()
    endforeach()
endforeach()

# The demo model's first three blocks with a third of their feed-forward networks: for tests that learn and would show nothing
# more on the whole of it.
if(TARGET short_model)
    set(demo_model ${CMAKE_CURRENT_SOURCE_DIR}/data/demo-model)
    file(GLOB demo_files CONFIGURE_DEPENDS ${demo_model}/*)
    # Removed first: of what a clean left of the folder short_model cannot know whose it is.
    add_custom_command(OUTPUT ${matquant_short_model}/config.json
        COMMAND ${CMAKE_COMMAND} -E rm -rf ${matquant_short_model}
        COMMAND short_model ${demo_model} 3 128 ${matquant_short_model}
        DEPENDS short_model ${demo_files}
        COMMENT "Shortening the demo model" VERBATIM)
    add_custom_target(matquant_short_model ALL DEPENDS ${matquant_short_model}/config.json)
    foreach(source IN LISTS unit_tests)
        get_filename_component(name ${source} NAME_WE)
        string(REPLACE test_ test_emulated_ emulated ${name})
        foreach(program IN ITEMS ${name} ${emulated})
            if(TARGET ${program} AND name MATCHES "^test_job_")
                add_dependencies(${program} matquant_short_model)
            endif()
        endforeach()
    endforeach()
endif()

set(data ${CMAKE_CURRENT_SOURCE_DIR}/data)
# Calls that bench_learn's timers stand between (tests/bench/learn_timers.h): those from one source file to another.
if(TARGET bench_learn)
    foreach(wrapped IN ITEMS mq_learner_load mq_learner_teach mq_learner_start mq_learner_measure mq_learner_train
            mq_learner_finish mq_learner_advance mq_master_writer_put_rows mq_block_forward mq_block_backward
            mq_attention_forward mq_attention_backward mq_block_loss_gradient mq_block_loss_value
            mq_recipe_grid_class mq_gemm
            mq_gemm_bf16_run mq_block_gram_add)
        target_link_options(bench_learn PRIVATE LINKER:--wrap=${wrapped})
    endforeach()
    # That they still do: the linker does not say when a name is gone.
    add_test(NAME bench.learn COMMAND bench_learn ${data}/demo-model ${data}/demo-calib.jsonl.gz
        ${CMAKE_CURRENT_BINARY_DIR}/tests/bench/never samples=4 seq-len=32 epochs=1 repeats=1)
    set_tests_properties(bench.learn PROPERTIES LABELS bench TIMEOUT 120 ENVIRONMENT "${matquant_test_environment}")
endif()

# Those of bench_refit, which looks by itself whether they saw anything, and whether all sequences were trained on.
if(TARGET bench_refit)
    foreach(wrapped IN ITEMS mq_distill_teach mq_distill_measure mq_student_load mq_head_kl_gradient)
        target_link_options(bench_refit PRIVATE LINKER:--wrap=${wrapped})
    endforeach()
    if(TARGET matquant)
        add_test(NAME bench.refit COMMAND bench_refit ${data}/demo-model ${CMAKE_CURRENT_BINARY_DIR}/cli-fixtures/master/m
            ${data}/demo-calib.jsonl.gz 8 4 1 -1 float32 1)
        set_tests_properties(bench.refit PROPERTIES LABELS bench TIMEOUT 120 ENVIRONMENT "${matquant_test_environment}"
            FIXTURES_REQUIRED master)
    endif()
endif()

# What scripts/bench.sh makes of an earlier run's numbers, and how scripts write tables. (Other tests need Python, too.)
foreach(name IN ITEMS compare tables)
    add_test(NAME bench.${name} COMMAND python3 ${CMAKE_CURRENT_SOURCE_DIR}/tests/bench/${name}.py
        ${CMAKE_CURRENT_SOURCE_DIR}/scripts)
    set_tests_properties(bench.${name} PROPERTIES LABELS bench TIMEOUT 60 ENVIRONMENT PYTHONDONTWRITEBYTECODE=1
        ENVIRONMENT_MODIFICATION "${matquant_test_changes}")
endforeach()

# --- fuzz ------------------------------------------------------------------------------------------------------

# fuzz_NAME.c with libFuzzer's main; without libFuzzer with one that goes through seeds/NAME, as the test fuzz.NAME.
file(GLOB fuzz_targets CONFIGURE_DEPENDS tests/fuzz/fuzz_*.c)
foreach(source IN LISTS fuzz_targets)
    get_filename_component(name ${source} NAME_WE)
    string(REGEX REPLACE "^fuzz_" "" subject ${name})
    file(GLOB seeds CONFIGURE_DEPENDS tests/fuzz/seeds/${subject}/*)
    matquant_layer_program(${name} ${source})
    if(TARGET ${name})
        set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/tests/fuzz)
        if(MATQUANT_FUZZ)
            target_link_options(${name} PRIVATE -fsanitize=fuzzer)
        else()
            target_sources(${name} PRIVATE tests/fuzz/driver.c)
        endif()
        add_test(NAME fuzz.${subject} COMMAND ${name} ${seeds})
        set_tests_properties(fuzz.${subject} PROPERTIES LABELS fuzz TIMEOUT 60 ENVIRONMENT "${matquant_test_environment}")
    endif()
endforeach()

# --- structure -------------------------------------------------------------------------------------------------

set(structure ${CMAKE_CURRENT_SOURCE_DIR}/tests/structure)
set(structure_work ${CMAKE_CURRENT_BINARY_DIR}/structure)

add_test(NAME structure.layers COMMAND ${CMAKE_COMMAND} -D SOURCE=${CMAKE_CURRENT_SOURCE_DIR}
    -D WORK=${structure_work}/layers -P ${structure}/layers.cmake)

# Each public header compiles alone, as C17 and as C++17, without a warning.
file(GLOB public_headers CONFIGURE_DEPENDS include/matquant/*.h)
foreach(header IN LISTS public_headers)
    get_filename_component(name ${header} NAME_WE)
    set(warnings -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -fsyntax-only
        -I ${CMAKE_CURRENT_SOURCE_DIR}/include)
    add_test(NAME structure.header.${name}.c
        COMMAND ${CMAKE_C_COMPILER} -std=c17 ${warnings} -Wstrict-prototypes
            -include ${header} -x c /dev/null)
    add_test(NAME structure.header.${name}.c++
        COMMAND ${CMAKE_CXX_COMPILER} -std=c++17 ${warnings} -include ${header} -x c++ /dev/null)
    list(APPEND structure_tests structure.header.${name}.c structure.header.${name}.c++)
endforeach()

if(matquant_clang_format)
    add_test(NAME structure.format COMMAND ${matquant_clang_format} --dry-run -Werror ${formatted})
    list(APPEND structure_tests structure.format)
endif()

if(TARGET matquant)
    set(install_flags "")
    if(MATQUANT_SANITIZE)
        set(install_flags "-fsanitize=address,undefined")
    elseif(MATQUANT_COVERAGE)
        set(install_flags "--coverage")
    endif()
    add_test(NAME structure.install COMMAND ${CMAKE_COMMAND} -D BUILD=${CMAKE_CURRENT_BINARY_DIR}
        -D SOURCE=${CMAKE_CURRENT_SOURCE_DIR} -D WORK=${structure_work}/install -D VERSION=${PROJECT_VERSION}
        -D COMPILER=${CMAKE_C_COMPILER} -D FLAGS=${install_flags} -D LIBDIR=${CMAKE_INSTALL_LIBDIR} -D NM=${CMAKE_NM}
        -P ${structure}/install.cmake)
    add_test(NAME structure.man_page COMMAND ${CMAKE_COMMAND} -D PROGRAM=$<TARGET_FILE:matquant>
        -D PAGE=${CMAKE_CURRENT_SOURCE_DIR}/docs/matquant.1 -P ${structure}/man-page.cmake)
    list(APPEND structure_tests structure.install structure.man_page)
endif()
list(APPEND structure_tests structure.layers)
set_tests_properties(${structure_tests} PROPERTIES LABELS structure TIMEOUT 120)

# --- command line ------------------------------------------------------------------------------------------------

# tests/cli/README.md says what a case is, and what the comments `# timeout:`, `# cost:`, `# provides:`, `# needs:` mean.
function(matquant_cli_test case script)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${script})
    get_filename_component(name ${case} NAME_WE)
    add_test(NAME cli.${name}
        COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/tests/cli/run-case.sh ${case})
    set(environment ${matquant_test_environment}
        MATQUANT_PROGRAM=$<TARGET_FILE:matquant>
        MATQUANT_SOURCE_DIR=${CMAKE_CURRENT_SOURCE_DIR}
        MATQUANT_FIXTURE_DIR=${CMAKE_CURRENT_BINARY_DIR}/cli-fixtures
        MATQUANT_SHORT_MODEL=${matquant_short_model}
        MATQUANT_SANITIZED=$<BOOL:${MATQUANT_SANITIZE}>)
    set_tests_properties(cli.${name} PROPERTIES LABELS cli TIMEOUT 300 SKIP_RETURN_CODE 77
        ENVIRONMENT "${environment}" ENVIRONMENT_MODIFICATION "${matquant_test_changes}")
    file(STRINGS ${script} settings REGEX "^# (timeout|cost|provides|needs): ")
    foreach(setting IN LISTS settings)
        string(REGEX MATCH "^# ([a-z]+): +(.*)$" matched "${setting}")
        set(key ${CMAKE_MATCH_1})
        string(REPLACE " " ";" value "${CMAKE_MATCH_2}")
        if(key STREQUAL timeout)
            set_tests_properties(cli.${name} PROPERTIES TIMEOUT ${value})
        elseif(key STREQUAL cost AND NOT matquant_unit_costs)
            continue() # measured already
        elseif(key STREQUAL cost)
            set_tests_properties(cli.${name} PROPERTIES COST ${value})
        elseif(key STREQUAL provides)
            set_tests_properties(cli.${name} PROPERTIES FIXTURES_SETUP "${value}")
        else()
            set_tests_properties(cli.${name} PROPERTIES FIXTURES_REQUIRED "${value}")
        endif()
    endforeach()
endfunction()

if(TARGET matquant)
    file(GLOB cli_scripts CONFIGURE_DEPENDS tests/cli/cases/*.sh)
    foreach(script IN LISTS cli_scripts)
        matquant_cli_test(${script} ${script})
    endforeach()
    file(GLOB cli_commands CONFIGURE_DEPENDS tests/cli/cases/*/cmd)
    foreach(command IN LISTS cli_commands)
        get_filename_component(case ${command} DIRECTORY)
        matquant_cli_test(${case} ${command})
    endforeach()
endif()
