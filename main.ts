// Plimsoll's one executable. Everything is in cmd/.
