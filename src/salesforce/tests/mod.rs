//! The adapter against small scripted servers on loopback: what is sent, and what is made of the answers.

mod hostile;
mod rest;
mod sandbox;
mod stand_in;
mod stream;
