"""What is known of a cell: identity, answers on their way, the measured record, the folder of them."""
