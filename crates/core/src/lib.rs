//! The pure core of calbridge.
