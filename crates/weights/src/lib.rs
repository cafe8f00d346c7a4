//! A Kimi K2 checkpoint on disk becomes typed tensors without copying.
