"""The smallest part of a network that still differs, with a program that shows it without multiseg."""
