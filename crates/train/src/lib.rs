//! MuonClip training of K2-architecture models.
