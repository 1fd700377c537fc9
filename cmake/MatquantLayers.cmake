# src/<layer>/*.c become one object library a layer, mq_<layer>; all of them the library; src/cli/*.c the program.
#
# The arrows are those of the dependency law (cmake/layers.cmake), for linking tests with no more than they need.

include(layers)

# mq_<layer>, unless the layer has no file yet; matquant_layers lists those that there are.
foreach(layer IN LISTS MQ_LIBRARY_LAYERS)
    file(GLOB sources CONFIGURE_DEPENDS src/${layer}/*.c)
    matquant_simd_sources(sources)
    if(sources)
        add_library(mq_${layer} OBJECT ${sources})
        target_include_directories(mq_${layer} PRIVATE src include)
        target_link_libraries(mq_${layer} PRIVATE matquant_flags matquant_dependencies)
        list(APPEND matquant_layers ${layer})
        list(APPEND matquant_objects $<TARGET_OBJECTS:mq_${layer}>)
    endif()
endforeach()

if(matquant_layers)
    # What the shared library exports is what the public headers declare, and nothing else.
    set(export_map ${CMAKE_CURRENT_BINARY_DIR}/libmatquant.map)
    file(GLOB public_headers CONFIGURE_DEPENDS include/matquant/*.h)
    add_custom_command(OUTPUT ${export_map}
        COMMAND ${CMAKE_COMMAND} -D OUTPUT=${export_map} -D "HEADERS=${public_headers}"
            -P ${CMAKE_CURRENT_SOURCE_DIR}/cmake/export-map.cmake
        DEPENDS ${public_headers} cmake/export-map.cmake VERBATIM)
    add_custom_target(export_map DEPENDS ${export_map})

    add_library(matquant_static STATIC ${matquant_objects})
    add_library(matquant_shared SHARED ${matquant_objects})
    set_target_properties(matquant_static matquant_shared PROPERTIES OUTPUT_NAME matquant LINKER_LANGUAGE C)
    # Before 1.0 a minor version may change the interface, so it is part of the soname.
    set_target_properties(matquant_shared PROPERTIES VERSION ${PROJECT_VERSION}
        SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR} LINK_DEPENDS ${export_map})
    add_dependencies(matquant_shared export_map)
    target_link_options(matquant_shared PRIVATE -Wl,--version-script=${export_map})
    foreach(library matquant_static matquant_shared)
        target_include_directories(${library} PUBLIC include)
        target_link_libraries(${library} PRIVATE matquant_flags matquant_dependencies)
    endforeach()
endif()

# The program sees the public headers and the static library, not src/: that is the upper end of the law.
file(GLOB cli_sources CONFIGURE_DEPENDS src/cli/*.c)
list(FILTER cli_sources EXCLUDE REGEX "/main\\.c$")
if(cli_sources)
    add_library(mq_cli OBJECT ${cli_sources})
    target_include_directories(mq_cli PRIVATE include)
    target_link_libraries(mq_cli PRIVATE matquant_flags PkgConfig::libcjson PkgConfig::libutf8proc) # for --json
endif()
if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/src/cli/main.c AND matquant_layers)
    add_executable(matquant src/cli/main.c)
    if(cli_sources)
        target_sources(matquant PRIVATE $<TARGET_OBJECTS:mq_cli>)
    endif()
    target_include_directories(matquant PRIVATE include)
    target_link_libraries(matquant PRIVATE matquant_static matquant_flags)
endif()
