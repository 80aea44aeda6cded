//! The command line: flags, help, output; human units end here.
