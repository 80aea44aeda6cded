//! Network namespaces: open, enter and come back, identify.
