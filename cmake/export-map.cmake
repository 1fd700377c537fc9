# cmake -D OUTPUT=FILE -D HEADERS=A;B -P export-map.cmake
#
# Writes a linker version script that exports every function the public headers name and hides all others.

cmake_minimum_required(VERSION 3.22)

set(functions)
foreach(header IN LISTS HEADERS)
    file(STRINGS ${header} lines REGEX "mq_[a-z0-9_]+\\(")
    list(FILTER lines EXCLUDE REGEX " inline ") # of these the library has nothing to export
    foreach(line IN LISTS lines)
        string(REGEX MATCHALL "mq_[a-z0-9_]+\\(" calls "${line}")
        string(REPLACE "(" "" calls "${calls}")
        list(APPEND functions ${calls})
    endforeach()
endforeach()
list(REMOVE_DUPLICATES functions)
list(SORT functions)
list(JOIN functions ";\n        " exported)
file(WRITE ${OUTPUT} "{\n    global:\n        ${exported};\n    local:\n        *;\n};\n")
