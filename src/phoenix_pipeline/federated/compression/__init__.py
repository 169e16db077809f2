"""Less traffic: how updates are written and what is sent; knows no messages and no Flower."""
