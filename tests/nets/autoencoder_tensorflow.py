class UserModel(Tower):

    @model_property
    def inference(self):
        with slim.arg_scope([slim.conv2d, slim.conv2d_transpose], kernel_size=[4, 4], stride=2, padding='SAME',
                            weights_initializer=tf.contrib.layers.xavier_initializer()):
            net = slim.conv2d(self.x, 16, scope='conv1')
            net = slim.conv2d(net, 32, scope='conv2')
            net = slim.conv2d_transpose(net, 16, scope='deconv1')
            net = slim.conv2d_transpose(net, 1, activation_fn=None, scope='deconv2')
        return tf.sigmoid(net, name='output')

    @model_property
    def loss(self):
        tf.summary.image('output', self.inference)
        return digits.mse_loss(self.inference, self.y)
