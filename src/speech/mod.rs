//! Text and files to frames: providers behind one small trait, and the library of ready prompts.
