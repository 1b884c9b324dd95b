"""Arrays in, arrays out.  ``reference`` defines right, ``dispatch`` runs the native code, ``custom`` the users' rules."""
