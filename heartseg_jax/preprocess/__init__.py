"""What the network sees: the contract, resampling and windows on the host, augmentation on the device."""
