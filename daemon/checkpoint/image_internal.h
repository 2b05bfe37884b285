#pragma once
/* Of private directories: shared by the image store and the runs of criu. */

/* Remove @name beneath @dir_fd and the plain files in it; 0 also if it is absent. */
int image_directory_remove(int dir_fd, const char *name);
