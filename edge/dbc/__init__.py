"""DBC files: read by `load`, compiled by `plan`, decoded by `flat`, summed up by `aggregate`."""
