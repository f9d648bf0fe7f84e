"""What the machine gives: files, devices, terminals, the model hub, processes."""
