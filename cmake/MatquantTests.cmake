# tests/unit/test_*.c: one program and one CTest test each.
#
# The first line of the file says the highest layer it needs, /* layer: tensor */: it is linked with that layer and
# those below it only, so that a lower layer can be tested while an upper one does not compile. `layer: cli` links
# src/cli (without main.c) and the library, and sees the public headers only.

pkg_check_modules(cmocka REQUIRED IMPORTED_TARGET cmocka)

# Threads that wait sleep: tests run side by side. A leak is an error in the sanitizer build.
set(matquant_test_environment OMP_WAIT_POLICY=passive)

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

function(matquant_unit_test source)
    get_filename_component(name ${source} NAME_WE)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${source})
    matquant_test_layer(layer ${source})
    if(NOT layer)
        return()
    endif()
    add_executable(${name} ${source})
    if(layer STREQUAL cli)
        if(NOT TARGET mq_cli OR NOT TARGET matquant_static)
            set_target_properties(${name} PROPERTIES EXCLUDE_FROM_ALL ON)
            return()
        endif()
        target_sources(${name} PRIVATE $<TARGET_OBJECTS:mq_cli>)
        target_include_directories(${name} PRIVATE include src/cli)
        target_link_libraries(${name} PRIVATE matquant_static)
    else()
        foreach(linked IN LISTS MQ_BELOW_${layer} layer)
            if(TARGET mq_${linked})
                target_sources(${name} PRIVATE $<TARGET_OBJECTS:mq_${linked}>)
            endif()
        endforeach()
        target_include_directories(${name} PRIVATE src include)
    endif()
    target_link_libraries(${name} PRIVATE matquant_flags matquant_dependencies PkgConfig::cmocka)
    target_compile_definitions(${name} PRIVATE
        MATQUANT_GOLDEN_DIR="${CMAKE_CURRENT_SOURCE_DIR}/tests/golden"
        MATQUANT_DATA_DIR="${CMAKE_CURRENT_SOURCE_DIR}/data"
        MATQUANT_SOURCE_DIR="${CMAKE_CURRENT_SOURCE_DIR}")
    add_test(NAME unit.${name} COMMAND ${name})
    set_tests_properties(unit.${name} PROPERTIES TIMEOUT 600 LABELS unit
        ENVIRONMENT "${matquant_test_environment}")
endfunction()

file(GLOB unit_tests CONFIGURE_DEPENDS tests/unit/test_*.c)
foreach(source IN LISTS unit_tests)
    matquant_unit_test(${source})
endforeach()
