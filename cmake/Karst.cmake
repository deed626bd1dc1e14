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
  if(CMAKE_CURRENT_SOURCE_DIR MATCHES "/services/")
    karst_before(${name} ${ARGN})
  endif()
endfunction()

# A client on librdkafka, from the *.c of this folder; left out where its headers are not installed.
function(karst_client name)
  pkg_check_modules(RDKAFKA IMPORTED_TARGET rdkafka)
  if(RDKAFKA_FOUND)
    karst_program(${name} base PkgConfig::RDKAFKA Threads::Threads)
  else()
    message(STATUS "no librdkafka: ${name} is not built")
  endif()
endfunction()

# The target `before`: bin/before holds the programs as the release before speaks on the bus, for tests of rolling upgrades. They are the
# same objects; bus_before goes before version.o of libs/bus.
add_custom_target(before)
function(karst_before name)
  add_executable(${name}-before EXCLUDE_FROM_ALL $<TARGET_OBJECTS:${name}> $<TARGET_OBJECTS:bus_before>)
  set_target_properties(${name}-before PROPERTIES OUTPUT_NAME ${name} LINKER_LANGUAGE C RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin/before)
  karst_link(${name}-before PRIVATE ${ARGN})
  add_dependencies(before ${name}-before)
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
