"""Networks, with the parameter names of torchvision where it has them."""
