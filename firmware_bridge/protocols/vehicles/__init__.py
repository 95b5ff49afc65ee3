"""What each vehicle can be asked, a file each: tables of identifiers for `uds_ev`."""
