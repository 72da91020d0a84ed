//! The operator's way out of damage.
