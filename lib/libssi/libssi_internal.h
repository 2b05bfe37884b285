#pragma once
/* For the test of this library: where the link is. */
extern const char *libssi_view_path;
