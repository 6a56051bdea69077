# Run by cpack between installing and packing (CPACK_PRE_BUILD_SCRIPTS): what Debian's policy asks of the files.
foreach(component program development)
  set(root ${CPACK_TEMPORARY_DIRECTORY}/${component})
  set(name ${CPACK_DEBIAN_PROGRAM_PACKAGE_NAME})
  if(component STREQUAL development)
    set(name ${CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME})
  endif()
  set(documents ${root}/usr/share/doc/${name})
  if(NOT IS_DIRECTORY ${root})
    continue() # not of this generator
  endif()

  # The licence is in `copyright`, the list of changes is compressed.
  file(REMOVE ${documents}/LICENSE ${documents}/CHANGELOG.md)
  file(MAKE_DIRECTORY ${documents})
  file(COPY_FILE ${CPACK_SNRQ_DEBIAN_FILES}/copyright ${documents}/copyright)
  file(COPY_FILE ${CPACK_SNRQ_CHANGES} ${documents}/changelog)
  file(COPY_FILE ${CPACK_SNRQ_DEBIAN_FILES}/changelog ${documents}/changelog.Debian)
  file(GLOB pages ${root}/usr/share/man/man1/*.1)
  execute_process(COMMAND gzip -9 -n -f ${documents}/changelog ${documents}/changelog.Debian ${pages}
                  COMMAND_ERROR_IS_FATAL ANY)
  file(GLOB overrides ${CPACK_SNRQ_DEBIAN_FILES}/${name}.lintian-overrides)
  if(overrides)
    file(MAKE_DIRECTORY ${root}/usr/share/lintian/overrides)
    file(COPY_FILE ${overrides} ${root}/usr/share/lintian/overrides/${name})
  endif()

  # cpack has stripped the programs, but not as dh_strip does.
  file(GLOB_RECURSE objects ${root}/usr/lib/*.a ${root}/usr/bin/* ${root}/usr/libexec/*)
  if(objects)
    execute_process(COMMAND ${CPACK_SNRQ_STRIP} --strip-debug --remove-section=.comment --remove-section=.note ${objects}
                    COMMAND_ERROR_IS_FATAL ANY)
  endif()

  file(GLOB_RECURSE files LIST_DIRECTORIES true ${root}/usr/share/doc/* ${root}/usr/share/man/* ${root}/usr/share/lintian/*)
  foreach(file ${files})
    if(IS_DIRECTORY ${file})
      file(CHMOD ${file} PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
    else()
      file(CHMOD ${file} PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ)
    endif()
  endforeach()
endforeach()
