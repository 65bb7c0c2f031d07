"""The fault campaign: breaks the recorder in every way named here and judges from outside what it then holds."""
