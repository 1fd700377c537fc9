# What is checked with every build (the dependency law), and the target `format`.

file(GLOB_RECURSE law_files CONFIGURE_DEPENDS src/*.c src/*.h include/*.h)
set(law_stamp ${CMAKE_CURRENT_BINARY_DIR}/dependency-law.stamp)
add_custom_command(OUTPUT ${law_stamp}
    COMMAND ${CMAKE_COMMAND} -D ROOT=${CMAKE_CURRENT_SOURCE_DIR}
        -P ${CMAKE_CURRENT_SOURCE_DIR}/cmake/check-layers.cmake
    COMMAND ${CMAKE_COMMAND} -E touch ${law_stamp}
    DEPENDS ${law_files} cmake/check-layers.cmake cmake/layers.cmake
    COMMENT "Checking the dependency law" VERBATIM)
add_custom_target(dependency_law ALL DEPENDS ${law_stamp})

# Versions of clang-format disagree on details, so only the one the tree is formatted with is used.
set(clang_format_version 14)
find_program(CLANG_FORMAT NAMES clang-format-${clang_format_version} clang-format)
set(matquant_clang_format "")
if(CLANG_FORMAT)
    execute_process(COMMAND ${CLANG_FORMAT} --version OUTPUT_VARIABLE version)
    if(version MATCHES "version ${clang_format_version}\\.")
        set(matquant_clang_format ${CLANG_FORMAT})
    endif()
endif()
if(matquant_clang_format)
    file(GLOB_RECURSE formatted CONFIGURE_DEPENDS
        include/*.h src/*.c src/*.h tests/*.c tests/*.h)
    add_custom_target(format COMMAND ${matquant_clang_format} -i ${formatted} VERBATIM)
else()
    message(STATUS "clang-format ${clang_format_version} not found: the format is not checked")
endif()
