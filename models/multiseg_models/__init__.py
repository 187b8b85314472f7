"""Networks to start from, each in the files of several formats; multiseg.model_files.shipped has the table of them."""
