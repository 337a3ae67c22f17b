"""How much detail does a sample need? Features of picture and question, the label table, the predictor."""
