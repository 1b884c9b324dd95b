"""Arrays in, arrays out.  ``reference`` defines right, ``dispatch`` runs native code, ``custom`` users' rules."""
