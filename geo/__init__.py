"""Where is it hosted: DNS and MMDB behind one door each; the verdict is pure."""
