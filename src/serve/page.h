// The page at / and what it loads: the files of web/, which are part of the program.
#pragma once
#include "serve/http_server.h"

namespace hadal {

// The status of what was sent; 0: the page has nothing at this path, and nothing was sent.
int send_page(const HttpCall& call, HttpReply& reply);

}  // namespace hadal
