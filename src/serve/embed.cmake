# Writes the files of web/ into a C++ source: cmake -DFOLDER=web -DOUT=page_files.cpp -P embed.cmake
set(types ".html=text/html" ".css=text/css" ".js=text/javascript" ".json=application/json" ".svg=image/svg+xml" ".webmanifest=application/manifest+json")
file(GLOB files "${FOLDER}/*")
list(SORT files)
set(rows "")
foreach(file IN LISTS files)
  get_filename_component(name "${file}" NAME)
  get_filename_component(end "${file}" LAST_EXT)
  set(type "")
  foreach(pair IN LISTS types)
    if(pair MATCHES "^(.+)=(.+)$" AND CMAKE_MATCH_1 STREQUAL end)
      set(type "${CMAKE_MATCH_2}; charset=utf-8")
    endif()
  endforeach()
  if(type STREQUAL "")
    message(FATAL_ERROR "${file}: expected .html, .css, .js, .json, .svg or .webmanifest")
  endif()
  if(name STREQUAL "index.html")
    set(name "")
  endif()
  file(READ "${file}" text)
  file(SHA256 "${file}" hash)
  string(APPEND rows "    {\"/${name}\", \"${type}\", \"${hash}\", R\"~page~(${text})~page~\"},\n")
endforeach()
file(WRITE "${OUT}" "#include \"serve/page_files.h\"

namespace hadal {
namespace {

constexpr PageFile files[] = {
${rows}};

}  // namespace

std::span<const PageFile> page_files() { return files; }

}  // namespace hadal
")
