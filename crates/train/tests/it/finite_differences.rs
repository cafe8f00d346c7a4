//! Gradients against central differences of the loss, the choice of experts being held fixed.
