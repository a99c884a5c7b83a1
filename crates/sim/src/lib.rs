//! Simulated stores: the fleet generator for load and the tills of the demo.
#![forbid(unsafe_code)]
