# cmake -D ROOT=FOLDER -P check-layers.cmake
#
# Holds every #include in ROOT/src and ROOT/include to the dependency law of layers.cmake. Prints each arrow that
# points the wrong way as FILE: MESSAGE and fails if there was one.

cmake_minimum_required(VERSION 3.22)
include(${CMAKE_CURRENT_LIST_DIR}/layers.cmake)

set(MQ_LAW "base <- tensor <- {text, model} <- quant <- store <- {job, eval, export} <- cli")
set(wrong "")

function(refuse file message)
    set(wrong "${wrong}\n  ${file}: ${message}" PARENT_SCOPE)
endfunction()

# The paths that a file includes, in quotes or angle brackets.
function(includes_of result file)
    file(READ ${file} text)
    # What may be in a comment or string would break CMake's lists; a path holds none of it.
    string(REGEX REPLACE "[];[]" " " text "\n${text}")
    string(REGEX MATCHALL "\n[ \t]*#[ \t]*include[ \t]*[\"<][^\">\n]+" lines "${text}")
    list(TRANSFORM lines REPLACE "^[^\"<]*[\"<]" "")
    set(${result} ${lines} PARENT_SCOPE)
endfunction()

# Quoted or not, "LAYER/..." and "matquant/..." are ours; <stdio.h> and <cjson/cJSON.h> are not.
function(first_folder result path)
    string(REGEX REPLACE "/.*" "" folder "${path}")
    set(${result} ${folder} PARENT_SCOPE)
endfunction()

file(GLOB_RECURSE public_headers RELATIVE ${ROOT} ${ROOT}/include/*)
foreach(file IN LISTS public_headers)
    includes_of(paths ${ROOT}/${file})
    foreach(path IN LISTS paths)
        first_folder(folder ${path})
        if(folder IN_LIST MQ_LIBRARY_LAYERS OR folder STREQUAL cli OR path MATCHES "^\\.")
            refuse(${file} "a public header includes ${path}, which is not public")
        endif()
    endforeach()
endforeach()

file(GLOB_RECURSE sources RELATIVE ${ROOT} ${ROOT}/src/*.c ${ROOT}/src/*.h)
foreach(file IN LISTS sources)
    if(NOT file MATCHES "^src/([^/]+)/[^/]+$")
        refuse(${file} "not directly in the folder of a layer")
        continue()
    endif()
    set(layer ${CMAKE_MATCH_1})
    if(NOT layer IN_LIST MQ_LIBRARY_LAYERS AND NOT layer STREQUAL cli)
        refuse(${file} "${layer} is not a layer")
        continue()
    endif()

    includes_of(paths ${ROOT}/${file})
    foreach(path IN LISTS paths)
        first_folder(folder ${path})
        if(path MATCHES "^\\.|/\\.\\./")
            refuse(${file} "includes ${path}: write it from src/ or include/")
        elseif(layer STREQUAL cli)
            if(folder IN_LIST MQ_LIBRARY_LAYERS)
                refuse(${file} "includes ${path}: the program sees the public headers only")
            endif()
        elseif(folder STREQUAL cli)
            refuse(${file} "includes ${path}: ${layer} is below cli")
        elseif(folder IN_LIST MQ_LIBRARY_LAYERS AND NOT folder STREQUAL layer
               AND NOT folder IN_LIST MQ_BELOW_${layer})
            refuse(${file} "includes ${path}: ${layer} may not see ${folder}")
        elseif(NOT path MATCHES "/" AND EXISTS ${ROOT}/src/${layer}/${path})
            refuse(${file} "includes ${path}: write ${layer}/${path}")
        endif()
    endforeach()
endforeach()

if(wrong)
    message(FATAL_ERROR "Includes against the dependency law, ${MQ_LAW}:${wrong}")
endif()
