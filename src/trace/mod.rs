//! The story of one meeting across both systems, for people.
