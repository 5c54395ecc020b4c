// What training wants of the allocator.
#pragma once

namespace hadal::train {

// From now on memory that is freed stays with the process: a step takes what the last one freed, and pages that the system gets back it
// would have to clear again.
void keep_freed_memory();

}  // namespace hadal::train
