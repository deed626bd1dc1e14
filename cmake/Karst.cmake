# What every folder's CMakeLists.txt is made of.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

# karst_library(NAME DEPS...): the static library k_NAME of this folder's *.c.
# A dependency is a library of ours by its folder's name, or anything that CMake can link.
function(karst_library name)
  file(GLOB sources CONFIGURE_DEPENDS *.c)
  if(NOT sources)
    return() # headers only, so far
  endif()
  add_library(k_${name} STATIC ${sources})
  target_include_directories(k_${name} PUBLIC ${PROJECT_SOURCE_DIR})
  karst_link(k_${name} PUBLIC ${ARGN})
endfunction()

# karst_program(NAME DEPS...): the program karst-NAME of this folder's *.c.
function(karst_program name)
  file(GLOB sources CONFIGURE_DEPENDS *.c)
  if(NOT sources)
    return() # headers only, so far
  endif()
  add_executable(${name} ${sources})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  karst_link(${name} PRIVATE ${ARGN})
endfunction()

# karst_unit(NAME DEPS...): the Criterion program unit_NAME of this folder's *.c, and a ctest of it.
function(karst_unit name)
  file(GLOB sources CONFIGURE_DEPENDS *.c)
  if(NOT sources)
    return() # headers only, so far
  endif()
  add_executable(unit_${name} ${sources})
  target_include_directories(unit_${name} PRIVATE ${PROJECT_SOURCE_DIR})
  karst_link(unit_${name} PRIVATE ${ARGN} criterion)
  add_test(NAME unit_${name} COMMAND unit_${name})
endfunction()

function(karst_link target scope)
  foreach(dep ${ARGN})
    if(IS_DIRECTORY ${PROJECT_SOURCE_DIR}/libs/${dep})
      target_link_libraries(${target} ${scope} k_${dep})
    else()
      target_link_libraries(${target} ${scope} ${dep})
    endif()
  endforeach()
endfunction()
