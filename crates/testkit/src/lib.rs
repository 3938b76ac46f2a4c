//! What the tests share. Never ships.
