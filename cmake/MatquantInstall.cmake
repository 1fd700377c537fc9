# cmake --install: program, library, headers, pkg-config file, man page.

file(RELATIVE_PATH matquant_prefix_from_pkgconfig
    ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
configure_file(matquant.pc.in matquant.pc @ONLY)

if(TARGET matquant)
    install(TARGETS matquant RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
if(TARGET matquant_static)
    install(TARGETS matquant_static matquant_shared DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
install(DIRECTORY include/matquant DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN *.h)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/matquant.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES docs/matquant.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
